"""The volumes of a Pod: files of ConfigMaps, Secrets, the Pod itself and its tokens, kept up to date; and empty folders.

``payload`` says what files a volume has (pure), ``atomic`` writes them, ``sources`` follows what they are taken from, ``tokens`` asks for
tokens, ``pod_volumes`` keeps one Pod's.
"""
