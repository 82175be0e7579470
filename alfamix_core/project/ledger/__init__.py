"""The ledger: deliveries, questions and answers as Delta Lake tables, and the rules over them as SQL views."""
