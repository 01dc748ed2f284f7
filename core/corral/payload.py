"""`Payload`: what a job carries, as a frozen pydantic model that speaks camelCase in JSON.

Strict out, tolerant in: a producer's unknown field is refused where the payload is built; a worker ignores
fields that a newer producer added (`Queue.read`), so that a rolling deployment kills no job.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["Payload"]


class Payload(BaseModel):
    """The base of every queue's payload model.

    Fields are snake_case in Python and camelCase in JSON, as a TypeScript producer writes them; both spellings are
    accepted by the constructor. Instances are immutable.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="null",  # a NaN in a job makes every Node client throw on it, for ever
    )
