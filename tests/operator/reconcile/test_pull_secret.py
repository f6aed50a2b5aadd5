from __future__ import annotations

import base64
import json

import pytest
from moorage_operator.errors import InvalidSpec
from moorage_operator.plan.image_source import repository_of
from moorage_operator.reconcile.pull_secret import registry_credentials


def secret(**auths: dict[str, str]) -> dict[str, bytes]:
    return {".dockerconfigjson": json.dumps({"auths": auths}).encode()}


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("app", "app"),
        ("app:1", "app"),
        ("r.example:5000/team/app", "r.example:5000/team/app"),
        ("r.example:5000/team/app:1.2", "r.example:5000/team/app"),
        ("r.example/app@sha256:00", "r.example/app"),
        ("r.example/app:1@sha256:00", "r.example/app"),
    ],
)
def test_a_repository_is_a_reference_without_tag_and_digest(reference: str, repository: str) -> None:
    assert repository_of(reference) == repository


def test_the_longest_matching_prefix_counts() -> None:
    entries = secret(**{"r.example": auth("all", "a"), "r.example/team": auth("team", "t"), "other.example": auth("no", "n")})
    assert registry_credentials(entries, "r.example/team/app", secret="s")["username"] == "team"
    assert registry_credentials(entries, "r.example/teams/app", secret="s")["username"] == "all"


@pytest.mark.parametrize("name", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("repository", ["nginx", "library/nginx", "docker.io/library/nginx"])
def test_docker_hub_has_many_names(name: str, repository: str) -> None:
    assert registry_credentials(secret(**{name: auth("u", "p")}), repository, secret="s") == {"username": "u", "password": "p"}


def test_a_registry_the_secret_does_not_know_is_asked_anonymously() -> None:
    assert registry_credentials(secret(**{"r.example": auth("u", "p")}), "elsewhere.example/app", secret="s") == {}


def test_an_identity_token_is_passed_on() -> None:
    assert registry_credentials(secret(**{"r.example": {"identitytoken": "t"}}), "r.example/a", secret="s") == {"identitytoken": "t"}


@pytest.mark.parametrize("entries", [{}, {".dockerconfigjson": b"no json"}, {".dockerconfigjson": b"[]"}])
def test_another_kind_of_secret_is_refused_with_the_command_that_makes_one(entries: dict[str, bytes]) -> None:
    with pytest.raises(InvalidSpec, match="kubectl create secret docker-registry"):
        registry_credentials(entries, "r.example/a", secret="shop/cred")


def test_an_entry_without_a_user_is_refused_with_the_command_that_makes_one() -> None:
    with pytest.raises(InvalidSpec, match="kubectl create secret docker-registry"):
        registry_credentials(secret(**{"r.example": {"email": "a@b.example"}}), "r.example/a", secret="shop/cred")
