"""Controllers of workloads: what turns a Deployment into Pods on nodes, and Pods into the endpoints of Services.

One folder a controller. In each, ``desired.py`` decides (a pure function of what the API says and the time), ``controller.py``
watches and acts.
"""
