"""What tests share: data, servers, processes and stand-ins."""
