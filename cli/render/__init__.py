"""What commands show: the live canvas, streams, progress, tables."""
