"""The image of one container from a registry: what it is asked with, when it is asked again, and what is said about it.

After a failure the next attempt comes ten seconds later, then after twice as long each time, at most five minutes. Who waits so is begun
at once when the image is there by other means.

Sources: https://kubernetes.io/docs/concepts/containers/images/ (image pull policy, imagePullBackOff)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from podwire.client.errors import ApiError, Unreachable
from podwire.images.errors import ImageRefused
from podwire.images.reference import parse
from podwire.objects.core import Container, Pod, Secret
from podwire.objects.resources import SECRETS
from podwire.pods.admission import CannotStart
from podwire.pods.host import Host

OF_IMAGES: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""Reasons of which an Event says the word alone."""
_FIRST_S, _LAST_S = 10.0, 300.0


class OfPod(Protocol):
    pod: Pod

    def event(self, kind: str, reason: str, message: str, field_path: str = "") -> None: ...


class Pulling:
    """``event`` says something of the container, the Pod something of itself."""

    def __init__(self, host: Host, pod: OfPod, event: Callable[[str, str, str], None]) -> None:
        self._host, self._pod, self._event = host, pod, event
        self._image, self._error = "", ""  # what failed, and why
        self._wait_s = self._retry_at = 0.0

    def left_s(self) -> float:
        """How long it is until the next attempt."""
        return max(0.0, self._retry_at - self._host.now())

    def check_name(self, container: Container) -> None:
        """Raises CannotStart for what is no name of an image."""
        try:
            parse(container.image)
        except ImageRefused as refused:
            words = f'Failed to apply default image tag "{container.image}": couldn\'t parse image name "{container.image}": {refused}'
            self._event("Warning", "InspectFailed", words)
            raise CannotStart("InvalidImageName", words) from refused

    async def is_denied(self, container: Container) -> bool:
        """Whether the image, which is there, is not the Pod's: it was pulled with credentials that the Pod does not have."""
        images = self._host.images
        return images.is_closed(container.image) and not images.opens(container.image, await self._secrets())

    async def pull(self, container: Container) -> None:
        """Pull the container's image. Raises CannotStart."""
        image = container.image
        if image != self._image:
            self._image, self._wait_s, self._retry_at = image, 0.0, 0.0
        secrets = await self._secrets()
        if self.left_s():
            words = f'Back-off pulling image "{image}"'
            self._event("Normal", "BackOff", words)
            raise CannotStart("ImagePullBackOff", f"{words}: ErrImagePull: {self._error}")
        self._event("Normal", "Pulling", f'Pulling image "{image}"')
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            size, took_s = await self._host.images.pull(image, secrets)
        except ImageRefused as refused:
            self._error = str(refused)
            self._wait_s = min(_LAST_S, 2 * self._wait_s) or _FIRST_S
            self._retry_at = self._host.now() + self._wait_s
            self._event("Warning", "Failed", f'Failed to pull image "{image}": {refused}')
            raise CannotStart("ErrImagePull", str(refused)) from refused
        self._wait_s = self._retry_at = 0.0
        times = f"{_took(took_s)} ({_took(loop.time() - began)} including waiting)"
        self._event("Normal", "Pulled", f'Successfully pulled image "{image}" in {times}. Image size: {size} bytes.')

    async def _secrets(self) -> list[Secret]:
        """The Pod's pull secrets, as they are now. One that is not there is said, and the others serve."""
        pod, found, missing = self._pod.pod, [], []
        for name in dict.fromkeys(one.name for one in pod.spec.image_pull_secrets if one.name):
            try:
                found.append(await self._host.client.get(SECRETS, name, pod.namespace))
            except (ApiError, Unreachable):
                missing.append(name)
        if missing:
            words = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); attempting to pull the image may not succeed."
            self._pod.event("Warning", "FailedToRetrieveImagePullSecret", words)
        return found


def _took(seconds: float) -> str:
    """A duration in milliseconds, as Go prints it."""
    whole = int(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    if minutes:
        return f"{minutes}m{rest / 1000:g}s"
    return f"{whole / 1000:g}s" if whole >= 1000 else f"{whole}ms"
