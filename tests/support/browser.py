"""A headless Chromium, driven through its DevTools protocol: what a person sees of Ray's dashboard."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp  # which Ray's dashboard brings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
START_S, LOOK_S = 30.0, 30.0


@dataclass
class Tab:
    """The browser's only tab."""

    socket: aiohttp.ClientWebSocketResponse
    numbers: Any = field(default_factory=itertools.count)

    async def call(self, method: str, **words: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and what it returns."""
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": words})
        while (answer := await self.socket.receive_json()).get("id") != number:
            pass  # an event
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def run(self, script: str) -> Any:
        """The value of some JavaScript."""
        return (await self.call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")

    async def wait_for(self, *wanted: str) -> str:
        """The page's text as soon as all of these are in it; what it says when the time is over."""
        deadline, text = time.monotonic() + LOOK_S, ""
        while time.monotonic() < deadline and not all(word in text for word in (*wanted, "")):
            await asyncio.sleep(0.2)
            text = await self.run("document.body ? document.body.innerText : ''") or ""
        return text

    async def type_into(self, label: str, text: str) -> None:
        """Types into the field that has a label."""
        find = f"[...document.querySelectorAll('label')].find(l => l.innerText === {json.dumps(label)})"
        await self.run(f"{find}.parentElement.querySelector('input').focus()")
        await self.call("Input.insertText", text=text)

    async def click(self, text: str) -> None:
        """Clicks what says just this, and shows what it opens."""
        find = f"[...document.querySelectorAll('*')].filter(e => e.innerText === {json.dumps(text)}).pop()"
        await self.run(f"{find}.click()")
        await self.run(f"{find}.scrollIntoView()")

    async def take_picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Tab]:
    """A browser that keeps everything in a folder."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "--window-size=1600,1000", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            port, deadline = folder / "DevToolsActivePort", time.monotonic() + START_S
            while not port.exists() or not port.read_text().strip():
                assert browser.poll() is None, "the browser has ended"
                assert time.monotonic() < deadline, "the browser does not start"
                await asyncio.sleep(0.1)
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", timeout=10
            ) as tabs:
                (address,) = [tab["webSocketDebuggerUrl"] for tab in json.load(tabs) if tab["type"] == "page"]
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=2**26) as socket:
                yield Tab(socket)
        finally:
            browser.terminate()


async def log_in(tab: Tab, dashboard: str, token: str) -> str:
    """Types the token into the dialog that the dashboard opens; returns what the page said before."""
    await tab.call("Page.navigate", url=dashboard)
    asked = await tab.wait_for("oken")
    await tab.type_into("Authentication Token", token)
    await tab.run(
        "[...document.querySelectorAll('[role=dialog] button')].find(b => /submit/i.test(b.innerText)).click()"
    )
    await asyncio.sleep(1)
    return asked


def read_pages(
    dashboard: str,
    token: str,
    pages: dict[str, tuple[str, ...]],
    folder: Path,
    *,
    typed: dict[str, tuple[str, str]],
    opened: dict[str, str],
    pictures: Path | None = None,
) -> dict[str, str]:
    """What the dashboard's pages say to a person who has given the token.

    Args:
        dashboard: its address.
        token: the cluster's.
        pages: of each page (`jobs`, `actors`, ...) the words that are waited for.
        folder: for the browser's own files.
        typed: of a page the label of a field and what is typed into it.
        opened: of a page the title of a section that is closed at first.
        pictures: folder for a picture of each page.

    Returns:
        {page: its text}; under "" what was said before the token was given.
    """

    async def read() -> dict[str, str]:
        async with open_browser(folder) as tab:
            texts = {"": await log_in(tab, dashboard, token)}
            for number, (page, wanted) in enumerate(pages.items()):
                await tab.call("Page.navigate", url=f"{dashboard}/#/{page}")
                if page in opened:
                    await tab.wait_for(opened[page])
                    await tab.click(opened[page])
                if page in typed:
                    await tab.wait_for(typed[page][0])
                    await tab.type_into(*typed[page])
                texts[page] = await tab.wait_for(*wanted)
                if pictures:
                    await tab.take_picture(pictures / f"{number}_{page.replace('/', '_').partition('?')[0]}.png")
            return texts

    return asyncio.run(read())
