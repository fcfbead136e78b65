"""Curve25519 (RFC 7748): the public key of a private one, and the secret that two machines share.

Not constant-time: the steps do not depend on the key's bits, but Python's big integers take longer for larger numbers.
To use that one would have to time single calls of a root process on this same machine; nothing that a network can see
depends on it. In exchange no private key is handed to another program, and none is started.
"""

from __future__ import annotations

from warren.wireguard.keys import PrivateKey, PublicKey

_PRIME = 2**255 - 19
_A24 = 121665
_BASE_POINT = 9


def public_key(private_key: PrivateKey) -> PublicKey:
    """What others know this key by."""
    return PublicKey(scalar_multiplication(private_key.reveal(), _BASE_POINT))


def shared_secret(private_key: PrivateKey, other: PublicKey) -> bytes:
    """What both ends make of the own private and the other's public key (RFC 7748, section 6.1).

    ValueError where it would be zero, whatever the private key: such a public key is nobody's.
    """
    point = int.from_bytes(other, "little") & (1 << 255) - 1  # section 5: the last bit does not count
    secret = scalar_multiplication(private_key.reveal(), point)
    if not any(secret):
        raise ValueError("this public key shares a secret with everybody")
    return secret


def scalar_multiplication(clamped: bytes, point: int) -> bytes:
    """The Montgomery ladder as RFC 7748 writes it; `point` is a u-coordinate."""
    scalar = int.from_bytes(clamped, "little")
    x_2, z_2, x_3, z_3 = 1, 0, point, 1
    swap = 0
    for position in range(254, -1, -1):
        bit = scalar >> position & 1
        mask = -(swap ^ bit)
        swap = bit
        x_difference, z_difference = mask & (x_2 ^ x_3), mask & (z_2 ^ z_3)
        x_2, x_3 = x_2 ^ x_difference, x_3 ^ x_difference
        z_2, z_3 = z_2 ^ z_difference, z_3 ^ z_difference
        a, b = x_2 + z_2, x_2 - z_2
        aa, bb = a * a % _PRIME, b * b % _PRIME
        e = aa - bb
        da, cb = (x_3 - z_3) * a % _PRIME, (x_3 + z_3) * b % _PRIME
        x_3 = (da + cb) ** 2 % _PRIME
        z_3 = point * (da - cb) ** 2 % _PRIME
        x_2 = aa * bb % _PRIME
        z_2 = e * (aa + _A24 * e) % _PRIME
    if swap:  # never for a clamped scalar, whose lowest bit is 0
        x_2, z_2 = x_3, z_3
    return (x_2 * pow(z_2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")
