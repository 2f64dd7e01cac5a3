"""Programs in the documented style of the PyPI package braintrace (0.2.4 to 0.2.6); they run here
as they would there.
"""
