"""The log's records: polled, decoded, validated, or set aside as dead letters."""
