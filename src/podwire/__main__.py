"""``python -m podwire`` is ``podwire``."""

from podwire.cli.main import entry

if __name__ == "__main__":
    entry()
