"""Kubernetes manifests: validation by the schemas of the API, and by closewatch."""

import json
import re
import warnings

import kubernetes_validate
import yaml

from closewatch import Failure, expect, run
from tools import CACHE, HERE, release_build

# The oldest Kubernetes with all features of the manifests, and the newest with a schema.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())

# The group of the Prometheus operator. Its kinds are not in the schemas of Kubernetes.
OPERATOR_GROUP = "monitoring.coreos.com/"


def parse(text: str) -> list[dict]:
    """The resources in a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def validate(resources: list[dict]):
    """Validates all resources by their schemas. Unknown fields are errors."""
    expect(resources, "no resource")
    for resource in resources:
        if resource["apiVersion"].startswith(OPERATOR_GROUP):
            run("node", HERE / "validate_operator_resource.mjs", input=json.dumps(resource))
        else:
            _validate_by_kubernetes(resource)


def check_configurations(resources: list[dict]):
    """Checks every configuration in the resources by `closewatch check`."""
    texts = [resource["data"]["config.yaml"] for resource in resources if resource["kind"] == "ConfigMap"]
    expect(texts, "no configuration")
    for text in texts:
        path = CACHE / "config.yaml"
        path.write_text(text)
        run(release_build(), "check", "--config", path)


def named(resources: list[dict], kind: str, name: str | None = None) -> dict:
    """The only resource of this kind and name."""
    found = [r for r in resources if r["kind"] == kind and name in (None, r["metadata"]["name"])]
    expect(len(found) == 1, f"{len(found)} resources of kind {kind}")
    return found[0]


def pod(deployment: dict) -> dict:
    """The pod of a Deployment."""
    return deployment["spec"]["template"]["spec"]


def sidecar(deployment: dict) -> dict:
    """The closewatch container among the init containers of a Deployment."""
    found = [c for c in pod(deployment).get("initContainers", []) if c["name"] == "closewatch"]
    expect(len(found) == 1, f"{len(found)} sidecars in {deployment['metadata']['name']}")
    return found[0]


def seconds(duration: str) -> int:
    """A duration in whole seconds, like 27s."""
    match = re.fullmatch(r"(\d+)s", duration)
    expect(match, f"{duration} is not a number of seconds")
    return int(match[1])


def check_drain_fits(container: dict, grace: int, configuration: dict, server_sleep: int | None = None):
    """A drain ends in time: delay + timeout < the hook < the hook of the server < the grace period of the pod."""
    shutdown = configuration["shutdown"]
    times = [seconds(shutdown["delay"]) + seconds(shutdown["timeout"])]
    if "lifecycle" in container:
        times.append(seconds(container["lifecycle"]["preStop"]["exec"]["command"][-1]))
    if server_sleep is not None:
        times.append(server_sleep)
    times.append(grace)
    expect(times == sorted(set(times)), f"not ascending: delay + timeout, the hooks, the grace period: {times} s")


def _validate_by_kubernetes(resource: dict):
    for version in KUBERNETES_VERSIONS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                kubernetes_validate.validate(resource, version, strict=True)
        except (kubernetes_validate.ValidationError, Warning) as error:
            what = f"{resource['kind']} {resource['metadata']['name']}"
            raise Failure(f"{what}, Kubernetes {version}: {error}") from None
