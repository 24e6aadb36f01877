"""What the trainer has read of the events topic, kept beyond the broker's retention: Parquet files by day."""
