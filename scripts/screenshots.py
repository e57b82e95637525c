"""Write docs/images: pictures of a running service's operators' page, light and dark."""

import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ViewportSize

from tests.renders import RENDERS, ROOT, render
from tests.showcase import Shop, browser, log_in, open_shop

IMAGES = ROOT / "docs" / "images"
WIDTH = 1180
NAME = "Book shop"


def main() -> int:
    service = ROOT / ".renders" / "screenshots"
    render(RENDERS["arq-apscheduler"].answers | {"project_name": NAME}, service)
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        browser() as chromium,
        open_shop(service, Path(folder, "shop")) as shop,
    ):
        shop.fill()
        take(chromium, shop, "light", "jobs", 760)
        take(chromium, shop, "dark", "queues", 520)
    return 0


def take(
    chromium: Browser, shop: Shop, scheme: Literal["light", "dark"], view: str, height: int
) -> None:
    size: ViewportSize = {"width": WIDTH, "height": height}
    with chromium.new_context(color_scheme=scheme, viewport=size) as context:
        page = context.new_page()
        log_in(page, shop)
        page.goto(f"{shop.url}/ops/{view}")
        path = IMAGES / f"ops-{scheme}.png"
        page.screenshot(path=path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    raise SystemExit(main())
