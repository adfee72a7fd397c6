"""Independent references: written from the definitions, sharing no code with the package they judge."""
