"""Container images of this user, shared by all clusters: what they are called, what they hold, and where they lie unpacked.

Here: reading archives as skopeo, docker save and buildkit write them, checking every digest, unpacking each layer once, and the store.
Not here: who runs a container of an image (``podwire.pods``), and the command line (``podwire.cli.image``).

Sources: https://github.com/opencontainers/image-spec, https://github.com/moby/docker-image-spec
"""
