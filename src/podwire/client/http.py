"""The HTTP library, loaded without the machine's certificates.

aiohttp makes two TLS contexts when it is imported and fills one of them with every certificate authority that the machine trusts,
which takes longer than all the rest of it (43 ms of 110). No client of ours uses that context: a kubeconfig's own authority is
what counts, and where it names none, client/kubeconfig.py makes a context with the machine's authorities itself.

Source: X509_get_default_cert_file_env in OpenSSL's manual; aiohttp/connector.py.
"""

from __future__ import annotations

import os

_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_before = {name: os.environ.get(name) for name in _NAMES}
os.environ.update(dict.fromkeys(_NAMES, os.devnull))
try:
    import aiohttp
finally:
    for _name, _value in _before.items():
        if _value is None:
            del os.environ[_name]
        else:
            os.environ[_name] = _value

__all__ = ["aiohttp"]
