"""What core needs from outside: small async Protocols, and the values they exchange. One module per kind of need."""
