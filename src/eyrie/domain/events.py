"""Events, the rules that pick some of them, and topics: nouns of the `events` and `sns` services.

An event is announced, rules match it, each match becomes a delivery to every target; a message to a topic becomes a
delivery to every subscriber. A delivery is owed until it is done or given up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eyrie.domain.names import Scope

DEFAULT_BUS = "default"


@dataclass(frozen=True, slots=True)
class Transformer:
    """How an event becomes what a target gets: values by name, put into a template."""

    template: str
    paths: dict[str, str] = field(default_factory=dict)  # name: $.detail.x


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a rule tells: an API destination, a topic, a log group, or an http(s) URL (Eyrie's own)."""

    target_id: str
    arn: str
    input: str | None = None  # constant JSON
    input_path: str | None = None
    transformer: Transformer | None = None
    headers: dict[str, str] = field(default_factory=dict)  # of an API destination, as are the next two
    query: dict[str, str] = field(default_factory=dict)
    path_values: tuple[str, ...] = ()  # for each * in the URL
    role: str | None = None
    retries_max: int | None = None
    age_max_s: int | None = None


@dataclass(frozen=True, slots=True)
class EventRule:
    """A rule: which events, or which times, and whom to tell."""

    scope: Scope
    name: str
    pattern: str = ""  # JSON
    schedule: str = ""  # rate(5 minutes), cron(0 12 * * ? *)
    enabled: bool = True
    description: str | None = None
    role: str | None = None
    targets: tuple[Target, ...] = ()
    next_ms: int = 0  # of its schedule

    @property
    def arn(self) -> str:
        """The ARN of the rule, on the default bus."""
        return f"arn:aws:events:{self.scope.region}:{self.scope.account}:rule/{self.name}"


@dataclass(frozen=True, slots=True)
class Connection:
    """How an API destination authenticates us."""

    scope: Scope
    name: str
    token: str  # of its ARN
    kind: str  # API_KEY, BASIC
    secrets: dict[str, str]  # header: value; of BASIC Username and Password
    headers: dict[str, str] = field(default_factory=dict)
    hidden_headers: tuple[str, ...] = ()  # names of those that are secret
    description: str | None = None
    modified_ms: int = 0

    @property
    def arn(self) -> str:
        """The ARN of the connection."""
        return f"arn:aws:events:{self.scope.region}:{self.scope.account}:connection/{self.name}/{self.token}"


@dataclass(frozen=True, slots=True)
class ApiDestination:
    """An HTTP address that rules may tell."""

    scope: Scope
    name: str
    token: str
    connection_arn: str
    url: str  # may have * for path values
    method: str
    rate_max: int = 300  # requests a second
    description: str | None = None

    @property
    def arn(self) -> str:
        """The ARN of the destination."""
        return f"arn:aws:events:{self.scope.region}:{self.scope.account}:api-destination/{self.name}/{self.token}"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: what is published to it goes to its subscribers."""

    scope: Scope
    name: str
    display_name: str = ""
    attributes: dict[str, str] = field(default_factory=dict)  # kept, and given back

    @property
    def arn(self) -> str:
        """The ARN of the topic."""
        return f"arn:aws:sns:{self.scope.region}:{self.scope.account}:{self.name}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscriber of a topic: an http(s) URL."""

    scope: Scope
    topic: str  # its name
    subscription_id: str
    protocol: str
    url: str
    token: str  # confirms it
    confirmed: bool = False
    raw: bool = False  # gets the message alone
    filter_policy: str = ""  # JSON
    filter_scope: str = "MessageAttributes"

    @property
    def arn(self) -> str:
        """The ARN of the subscription."""
        return f"arn:aws:sns:{self.scope.region}:{self.scope.account}:{self.topic}:{self.subscription_id}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that is owed to somebody: it is tried until it is done, or given up."""

    scope: Scope
    delivery_id: str
    origin: str  # "EventRule", "Topic": the kind of the resource that owes it
    name: str  # of that resource
    what: str  # for people: "alarm ALARM: high"
    to: str  # http(s) URL, or the ARN of an API destination or a log group
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    created_ms: int = 0
    next_ms: int = 0  # when it is tried next
    attempts: int = 0
    attempts_max: int = 50
    age_max_ms: int = 3_600_000
    confirms: str = ""  # the subscription that its success confirms
    target: Target | None = None  # of a rule
