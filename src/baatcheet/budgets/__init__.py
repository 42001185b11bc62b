"""Who may spend what: model allow-lists, budgets, and the usage that its holder sees."""
