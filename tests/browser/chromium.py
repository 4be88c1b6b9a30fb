"""A headless Chromium, driven over its debugging protocol."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0"]
# The task graph is drawn with WebGL, which needs a software renderer without a graphics card.
FLAGS += ["--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--window-size=1200,800"]


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._sent = socket, 0

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while True:
            reply = json.loads(self._socket.recv(timeout=60))
            if reply.get("id") == self._sent:
                assert "error" not in reply, reply["error"]
                return dict(reply["result"])

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str) -> Any:
        return self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

    def click(self, label: str) -> None:
        """Click the innermost element whose text is ``label``."""
        self.wait_for(label)
        script = """label => {
            const found = [...document.querySelectorAll("*")].filter(item => item.textContent.trim() === label).pop();
            if (found) found.click();
            return Boolean(found);
        }"""
        assert self.run(f"({script})({json.dumps(label)})"), f"nothing reads {label!r}"

    def press(self, label: str) -> None:
        """Press the mouse on the innermost element whose text is ``label``, for widgets that do not listen to clicks."""
        self.wait_for(label)
        script = """label => {
            const found = [...document.querySelectorAll("*")].filter(item => item.textContent.trim() === label).pop();
            found.scrollIntoView({block: "center"});
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }"""
        x, y = self.run(f"({script})({json.dumps(label)})")
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def keys(self, *keys: str) -> None:
        """Press keys, by the names that a page sees."""
        for key in keys:
            text = "\r" if key == "Enter" else key if len(key) == 1 else ""
            self._ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", key=key, text=text)
            self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def held(self, key: str, times: int) -> None:
        """Hold a key of one character down for so long that it repeats."""
        for number in range(times):
            self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=key, autoRepeat=number > 0)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def scheme(self, name: str) -> None:
        """``light`` or ``dark``."""
        self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def scripts(self, allowed: bool) -> None:
        """Whether pages may run scripts of their own."""
        self._ask("Emulation.setScriptExecutionDisabled", value=not allowed)

    def wait_until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a script's value is true."""
        end = time.monotonic() + seconds
        while self.run(condition) is not True:
            assert time.monotonic() < end, f"never true: {condition}; the page starts:\n{self.text()[:600]}"
            time.sleep(0.1)

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text once it holds every word."""
        end, text = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            text = self.text()
            if all(word in text for word in words):
                return text
            time.sleep(0.5)
        missing = [word for word in words if word not in text]
        raise AssertionError(f"{missing} never appeared in the page; it starts:\n{text[:600]}")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with one tab; ``profile`` is an empty folder."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program, f"browser tests need one of {', '.join(NAMES)}: apt-get install chromium"
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        announced, end = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (announced.is_file() and announced.read_text().count("\n")):
            assert browser.poll() is None and time.monotonic() < end, f"{program} did not start"
            time.sleep(0.2)
        port = announced.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as reply:
            tab = next(item for item in json.load(reply) if item["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(10)
