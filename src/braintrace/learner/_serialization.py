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

    def taken(like: Any, stored: dict[str, Any]) -> Any:
        kept = {k: v for k, v in stored.items() if isinstance(v, str) or v is None}
        trees = {
            k: flax.from_state_dict(getattr(like, k), stored[k]) for k in stored if k not in kept
        }
        return type(like)(**kept, **trees)

    for kind in (State, Info):
        flax.register_serialization_state(
            kind, lambda state: {k: flax.to_state_dict(v) for k, v in vars(state).items()}, taken
        )
