"""The CNI plugin: a container's network by the specification that container runtimes share, for the lab's Pods and for anybody's."""
