"""What shapes a program makes."""


def sizes_in(jaxpr):
    """The shapes of all values in a jaxpr, inner ones included."""
    found = set()
    for e in jaxpr.eqns:
        found |= {tuple(v.aval.shape) for v in e.outvars}
        for value in e.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    found |= sizes_in(getattr(inner, "jaxpr", inner))
    return found
