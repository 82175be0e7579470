"""The ledger: what was delivered, asked and answered, as Delta Lake tables; the rules over them as SQL views."""
