"""The plain manifest, the kustomize base and the component."""

import yaml

from closewatch import ROOT, expect, expect_equal, run
from manifests import check_configurations, check_drain_fits, named, parse, pod, sidecar, validate
from tools import kustomize

MANIFEST = ROOT / "deploy/kubernetes/sidecar.yaml"
COMPONENT = ROOT / "deploy/kubernetes/component"
OVERLAY = ROOT / "tests/deployment/overlay"


def check(report):
    plain = parse(MANIFEST.read_text())
    with report.check("kubernetes: the manifest is valid"):
        validate(plain)
    with report.check("kubernetes: closewatch accepts its configuration"):
        check_configurations(plain)
    with report.check("kubernetes: a drain ends in time"):
        check_times(plain)
    with report.check("kubernetes: the base is the manifest"):
        built = parse(run(kustomize(), "build", MANIFEST.parent))
        expect_equal(by_name(built), by_name(plain), "what kustomize builds")
    with report.check("kubernetes: the component adds the same sidecar to a server"):
        built = parse(run(kustomize(), "build", OVERLAY))
        validate(built)
        check_configurations(built)
        expect_equal(sidecar(named(built, "Deployment", "chat")), sidecar(named(plain, "Deployment")), "the sidecar")
        expect_equal(named(built, "PodMonitor"), named(plain, "PodMonitor"), "the PodMonitor")
        expect_equal(named(built, "ConfigMap")["data"], named(plain, "ConfigMap")["data"], "the configuration")
    with report.check("kubernetes: the component leaves other servers alone"):
        built = parse(run(kustomize(), "build", OVERLAY))
        other = named(parse((OVERLAY / "servers.yaml").read_text()), "Deployment", "other")
        expect_equal(named(built, "Deployment", "other"), other, "the other server")


def check_times(resources: list[dict]):
    deployment = named(resources, "Deployment")
    configuration = yaml.safe_load(named(resources, "ConfigMap")["data"]["config.yaml"])
    server_sleep = pod(deployment)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod(deployment)["terminationGracePeriodSeconds"]
    check_drain_fits(sidecar(deployment), grace, configuration, server_sleep)
    expect(configuration["admin"]["control"], "preStop drains, but admin.control is off")


def by_name(resources: list[dict]) -> dict:
    return {(resource["kind"], resource["metadata"]["name"]): resource for resource in resources}
