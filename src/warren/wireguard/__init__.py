"""WireGuard's own words: keys, endpoints, AllowedIPs, the values of a device."""
