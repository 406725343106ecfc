"""``python -m podwire`` is ``podwire``."""

from podwire.cli.main import main

if __name__ == "__main__":
    main()
