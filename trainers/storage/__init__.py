"""What families share to read and keep data: files, pictures, object storage, blocks of computed rows."""
