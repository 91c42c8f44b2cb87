"""The generic family: Create, Describe, List, Update and Delete of any noun that is a mere record, from botocore's
shapes and a row of `family_table`.

A document's body is what Create was given (times as seconds since the epoch), with updates merged in. Which error a
missing or taken name gives follows from what the operation models: ResourceNotFound or ResourceInUse where it lists
them, else ValidationException.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from eyrie.control.context import Context, Operation, Params, seconds, without
from eyrie.control.family_table import FAMILY, Noun
from eyrie.control.listing import Row, page
from eyrie.control.records import delete_with_tags, new_tags, refuse_beyond_quota, tags_document
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError, could_not_find, resource_in_use, resource_not_found, validation
from eyrie.wire.model import Operation as ServiceOperation
from eyrie.wire.model import Service, Shape


def operations(service: Service) -> dict[str, Operation]:
    """The operations of every noun of the family."""
    found: dict[str, Operation] = {}
    for noun in FAMILY:
        found.update(Record(noun, service).operations())
    return found


@dataclass(frozen=True, slots=True)
class Record:
    """One noun of the family, with its shapes."""

    noun: Noun
    service: Service

    def operations(self) -> dict[str, Operation]:
        """Those that the service has."""
        kind = self.noun.kind
        every: dict[str, Operation] = {
            f"Create{kind}": self.create,
            f"Describe{kind}": self.describe,
            f"Update{kind}": self.update,
            f"Delete{kind}": self.delete,
            self.noun.list_operation: self.list_all,
        }
        return {name: operation for name, operation in every.items() if self.service.operation(name) is not None}

    def create(self, context: Context, params: Params) -> dict[str, Any]:
        """Store a new one; its ARN."""
        name = context.identity.token(32) if self.noun.by_arn else params[self.noun.member]
        self._check_parent(context, params)
        refuse_beyond_quota(context, self.noun.kind)
        if context.get(self.noun.kind, name) is not None:
            raise self._taken(name)
        body = plain(without(params, "Tags"))
        body["CreatedBy"] = _identity(context)
        document = context.new(self.noun.kind, name, body)
        context.store.commit(Commit(puts=[document, *new_tags(context, self.noun.arn_type, name, params)]))
        return self._reply(f"Create{self.noun.kind}", self._arn(context, name))

    def describe(self, context: Context, params: Params) -> dict[str, Any]:
        """One as it is now."""
        found = self.find(context, params)
        return _pick(self._view(context, found), self._output(f"Describe{self.noun.kind}"))

    def update(self, context: Context, params: Params) -> dict[str, Any]:
        """Replace what the call names, merge its maps, remove the keys that it lists."""
        found = self.find(context, params)
        body = dict(found.body)
        body["LastModifiedBy"] = _identity(context)
        shapes = self._input(f"Update{self.noun.kind}")
        for member, value in plain(params).items():
            if member.endswith("ToRemove"):
                mapping = member.removesuffix("ToRemove")
                body[mapping] = {k: v for k, v in body.get(mapping, {}).items() if k not in value}
            elif shapes[member].kind == "map" or member in self.noun.merged:
                body[member] = {**body.get(member, {}), **value}
            elif member not in (self.noun.member, self._arn_member) or self.noun.by_arn:
                body[member] = value
        context.store.commit(Commit(puts=[replace(found, body=body, modified_ms=context.now_ms)]))
        return self._reply(f"Update{self.noun.kind}", self._arn(context, found.name))

    def delete(self, context: Context, params: Params) -> dict[str, Any]:
        """Forget one; refused while others name it as their parent."""
        found = self.find(context, params)
        for other in FAMILY:
            if other.parent[1] == self.noun.kind:
                self._refuse_children(context, found.name, other)
        delete_with_tags(context, self.noun.arn_type, found)
        return self._reply(f"Delete{self.noun.kind}", self._arn(context, found.name))

    def list_all(self, context: Context, params: Params) -> dict[str, Any]:
        """A page of them."""
        return self.list_of(context, params, context.store.scan(self.noun.kind, context.scope))

    def list_of(self, context: Context, params: Params, documents: Sequence[Document]) -> dict[str, Any]:
        """A page of these documents, filtered further by what the table says."""
        operation = self.noun.list_operation
        member, summaries = next((n, shape) for n, shape in self._output(operation).items() if shape.kind == "list")
        item = summaries.element.members if summaries.element else {}
        rows = [self._row(context, d, item) for d in documents if self._passes(d, params)]
        return page(operation, params, rows, self.noun.order).reply(member)

    def find(self, context: Context, params: Params) -> Document:
        """The one that a call names. Raises what the service answers for a missing one."""
        if not self.noun.by_arn:
            name = params[self.noun.member]
            arn = self._arn(context, name)
        else:
            arn = self._named_arn(context, params)
            name = arn.rpartition("/")[2] if arn == self._arn(context, arn.rpartition("/")[2]) else ""
        found = context.get(self.noun.kind, name)
        if found is None:
            raise self._missing(arn, name or arn)
        return found

    def _named_arn(self, context: Context, params: Params) -> str:
        """The ARN in a call; a lineage noun may also be named by its source."""
        if self._arn_member in params:
            return str(params[self._arn_member])
        if "Source" not in params:
            raise validation(f"{self._arn_member} or Source is needed.")
        for document in context.store.scan(self.noun.kind, context.scope):
            if document.body.get("Source", {}).get("SourceUri") == params["Source"].get("SourceUri"):
                return self._arn(context, document.name)
        return str(params["Source"].get("SourceUri"))

    def _view(self, context: Context, d: Document) -> dict[str, Any]:
        """Everything that there is to say of one, by member name."""
        view = {
            **self.noun.constants,
            **d.body,
            self._arn_member: self._arn(context, d.name),
            "CreationTime": seconds(d.created_ms),
            "LastModifiedTime": seconds(d.modified_ms),
        }
        if not self.noun.by_arn:
            view[self.noun.member] = d.name
        tags = tags_document(context, self.noun.arn_type, d.name)
        if tags is not None:
            view["Tags"] = tags.body["Tags"]
        return view

    def _row(self, context: Context, d: Document, item: Mapping[str, Shape]) -> Row:
        view = self._view(context, d)
        for member, path in self.noun.summary.items():
            view[member] = _at(view, path) or ""
        return Row(d.name, d.created_ms, d.modified_ms, _pick(view, item))

    def _passes(self, d: Document, params: Params) -> bool:
        return all(params[name] == _at(d.body, path) for name, path in self.noun.filters.items() if name in params)

    def _check_parent(self, context: Context, params: Params) -> None:
        member, kind = self.noun.parent
        if kind and context.get(kind, params[member]) is None:
            raise resource_not_found(f"{kind} '{params[member]}' does not exist.")

    def _refuse_children(self, context: Context, name: str, other: Noun) -> None:
        for document in context.store.scan(other.kind, context.scope):
            if document.body.get(other.parent[0]) == name:
                raise validation(
                    f"{self.noun.kind} '{name}' cannot be deleted: {other.words} '{document.name}' belongs to it."
                )

    def _missing(self, arn: str, name: str) -> ApiError:
        if "ResourceNotFound" in self._operation(f"Describe{self.noun.kind}").errors:
            return resource_not_found(f"{self.noun.kind} '{name}' does not exist.")
        return could_not_find(self.noun.words, arn)

    def _taken(self, name: str) -> ApiError:
        text = self.noun.taken.format(kind=self.noun.kind, name=name)
        in_use = "ResourceInUse" in self._operation(f"Create{self.noun.kind}").errors
        return resource_in_use(text) if in_use else validation(text)

    def _arn(self, context: Context, name: str) -> str:
        return context.arn(self.noun.arn_type, name)

    @property
    def _arn_member(self) -> str:
        return next(name for name in self._output(f"Create{self.noun.kind}") if name.endswith("Arn"))

    def _operation(self, name: str) -> ServiceOperation:
        found = self.service.operation(name)
        assert found is not None  # `operations` offers only what the service has
        return found

    def _input(self, operation: str) -> Mapping[str, Shape]:
        shape = self._operation(operation).input
        return shape.members if shape is not None else {}

    def _output(self, operation: str) -> Mapping[str, Shape]:
        shape = self._operation(operation).output
        return shape.members if shape is not None else {}

    def _reply(self, operation: str, arn: str) -> dict[str, Any]:
        return _pick({self._arn_member: arn}, self._output(operation))


def plain(value: Any) -> Any:
    """Parameters as a document can hold them: times become seconds since the epoch."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.timestamp() if isinstance(value, datetime) else value


def _identity(context: Context) -> dict[str, Any]:
    return {"IamIdentity": {"Arn": context.caller.arn, "PrincipalId": context.caller.user_id}}


def _pick(view: Mapping[str, Any], members: Mapping[str, Shape]) -> dict[str, Any]:
    return {name: view[name] for name in members if view.get(name) is not None}


def _at(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
