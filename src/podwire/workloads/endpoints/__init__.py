"""EndpointSlices and Endpoints: the Pods behind a Service."""
