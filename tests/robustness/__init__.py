"""Whatever a learner is given, it computes what is right or refuses it with a clear error."""
