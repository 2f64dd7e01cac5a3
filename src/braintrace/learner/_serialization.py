"""States in files: what `jax.export` and `flax.serialization` know of them."""

import json
import sys
from typing import Any

import jax.export

from ._state import Info, State

for _kind in (State, Info):
    jax.export.register_pytree_node_serialization(
        _kind,
        serialized_name=f"braintrace.{_kind.__name__}",
        serialize_auxdata=lambda static: json.dumps(static).encode(),
        deserialize_auxdata=lambda text: tuple(json.loads(text)),
    )


def offer_to_flax() -> None:
    """Register the states with `flax.serialization` where the program has imported it.

    Learners do so whenever they make or take a state; `import braintrace` imports no framework.
    """
    flax: Any = sys.modules.get("flax.serialization")
    if flax is None or flax.is_serializable(State):
        return

    is_text = lambda v: v is None or isinstance(v, str)

    def written(state: Any) -> dict[str, Any]:
        told = {k: v and str(v) for k, v in vars(state).items() if is_text(v)}
        return {k: flax.to_state_dict(v) for k, v in vars(state).items() if k not in told} | told

    def read(like: Any, stored: dict[str, Any]) -> Any:
        found = lambda k, v: v if is_text(v) else flax.from_state_dict(getattr(like, k), v)
        return type(like)(**{k: found(k, v) for k, v in stored.items()})

    for kind in (State, Info):
        flax.register_serialization_state(kind, written, read)
