"""Tools around the broker for `make`: private servers, unpacked programs, README's figures."""
