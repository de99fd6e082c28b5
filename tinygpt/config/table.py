"""What every table of the configuration is."""

from typing import get_args

from pydantic import BaseModel, model_validator


class Table(
    BaseModel,
    extra="forbid",
    frozen=True,
    strict=True,
    allow_inf_nan=False,
    validate_default=True,
    populate_by_name=True,
):
    """A frozen table that refuses unknown keys, infinities, and values of another type.

    `true` and `"16"` are not accepted as numbers. The word "none" is None wherever a key may be
    None, because TOML has no null.
    """

    @model_validator(mode="before")
    @classmethod
    def _none_is_a_word(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        optional = {
            field.alias or key
            for key, field in cls.model_fields.items()
            if type(None) in get_args(field.annotation)
        }
        return {
            key: None if key in optional and value == "none" else value
            for key, value in values.items()
        }
