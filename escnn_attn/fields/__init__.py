"""Field types by name, irreps with multiplicities, isotypic coordinates, and functions on the group."""
