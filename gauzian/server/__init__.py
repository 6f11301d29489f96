"""From socket to ASGI: Hypercorn's HTTP/1.1 on a connection of ours; knows no route."""
