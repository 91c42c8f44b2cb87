"""Floor 4, the console: pages at /console for people. A client of the public API (docs/guides/console.md).

    browser -> gateway -> run/console.sock: door (who is it?) -> a page -> client -> the gateway's port -> the API

It reads no file of Eyrie's, and keeps nothing: what it shows it asks for. NiceGUI is the extra `console`.
"""
