"""The two generations of browser clients, as far as the wire can tell."""
