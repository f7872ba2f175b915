"""Units, frames, systems, contracts, errors, replicas: what every other layer speaks in."""
