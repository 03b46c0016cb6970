"""The audit trail: what becomes an entry, and how entries reach the stream AUDIT."""
