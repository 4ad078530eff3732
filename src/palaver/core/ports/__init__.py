"""The ports of core: small async Protocols, and the values they exchange. One module per kind of dependency."""
