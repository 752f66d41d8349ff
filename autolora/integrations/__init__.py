"""Parts of autolora inside other tools. Each module needs the tool that it is named after; nothing imports them."""
