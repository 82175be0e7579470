"""The inbox: files that people and tools deliver, and may change at any moment. No round depends on them."""
