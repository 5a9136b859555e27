"""What families share to keep data: whole files, object storage, tables on disk, blocks of rows that are computed
once."""
