"""Who and where: accounts, regions, resource names and their ARNs."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ACCOUNT = "123456789012"
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """The account and region that a request's credentials name; every resource lives in exactly one."""

    account: str = DEFAULT_ACCOUNT
    region: str = DEFAULT_REGION

    def arn(self, kind: str, name: str, service: str = "sagemaker") -> str:
        """The ARN of a resource: `arn:aws:sagemaker:REGION:ACCOUNT:KIND/NAME`."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{kind}/{name}"


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """One endpoint among all accounts and regions."""

    account: str
    region: str
    name: str

    @property
    def scope(self) -> Scope:
        """The account and region that the endpoint lives in."""
        return Scope(self.account, self.region)

    @property
    def slug(self) -> str:
        """A file-name-safe form: endpoint names hold no dot, so it reads back unambiguously."""
        return f"{self.account}.{self.region}.{self.name}"

    @staticmethod
    def from_slug(slug: str) -> EndpointKey:
        """The inverse of `slug`. Raises ValueError for anything else."""
        account, region, name = slug.split(".")
        return EndpointKey(account, region, name)
