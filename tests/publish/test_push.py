"""Pushing: a dry run asks nobody; the real one speaks to a hub of the test's own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from raysynth.errors import ConfigError, StorageError
from raysynth.progress import Progress
from raysynth.publish.push import push
from tests.publish.made import make_run, stranger


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


def test_a_dry_run_lists_what_would_go_and_asks_nobody(made, monkeypatch):
    def network(*given, **named):
        raise AssertionError("asked")

    monkeypatch.setattr("socket.socket.connect", network)
    said = push(made.config, "anna/birds", Progress(), "images", dry_run=True).splitlines()
    assert said[-1].endswith("/datasets/anna/birds (dataset, private)")
    assert said[-1].startswith(f"{len(said) - 1} files, ")
    assert any(line.endswith("  data/train-00000.parquet") for line in said)
    with pytest.raises(ConfigError, match="OWNER/NAME: got 'a b'"):
        push(made.config, "a b", Progress(), "images", dry_run=True)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload of small files needs."""

    def do_POST(self):
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        place = f"{self.server.url}/datasets/anna/birds"
        answer = {"url": place, "commitUrl": f"{place}/commit/1", "commitOid": "1"}
        if "preupload" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            answer = {"files": files}
        elif "validate-yaml" in self.path:
            answer = {"errors": [], "warnings": []}
        elif "create" in self.path:
            answer = {"url": place}
        self._say(answer)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def do_GET(self):
        self._say({"sha": "0" * 40, "id": "anna/birds", "siblings": [], "private": True})

    def _say(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *given):
        """Quiet."""


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


def test_images_and_their_card_arrive_in_one_commit(made, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("raysynth.publish.push.HfApi", lambda: _api(hub.url))
    said = push(made.config, "anna/birds", Progress(), "images")
    assert said.endswith(f"{hub.url}/datasets/anna/birds")
    asked = dict(hub.asked)
    assert json.loads(asked["/api/repos/create"])["name"] == "birds"
    (commit,) = [body for path, body in hub.asked if "/commit/" in path]
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert {"README.md", "data/train-00000.parquet"} <= sent
    assert lines[0]["value"]["summary"] == "images of the run tiny"


def _api(url: str):
    from huggingface_hub import HfApi

    return HfApi(endpoint=url, token="hf_test")


def test_a_hub_that_cannot_be_reached_is_said(made, monkeypatch):
    monkeypatch.setattr("raysynth.publish.push.HfApi", lambda: _api("http://127.0.0.1:9"))
    with pytest.raises(StorageError, match=r"push: .*Fix: `hf auth login`"):
        push(made.config, "anna/birds", Progress(), "images")


def test_a_data_sets_card_is_one_to_the_hubs_own_library(made, tmp_path):
    from raysynth.publish.images import export_images

    export_images(made.config, str(tmp_path), Progress())
    script = f"""
import json
from huggingface_hub import DatasetCard
card = DatasetCard.load({str(tmp_path / "README.md")!r})
print(json.dumps(card.data.to_dict()))
"""
    data = json.loads(stranger(script)[-1])
    assert data["task_categories"] == ["image-classification"]
    assert data["size_categories"] == ["n<1K"] and data["license"] == "unknown"
    assert "configs" not in data, "with it, one local folder is taken for another of its name"
