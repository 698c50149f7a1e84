#!/bin/sh
# Makes what the sessions of the documents and of scripts/picture start from, in the home directory: the directory
# ~/notes, and the repository ~/shop with a stack, whose branches `main` and `feat` serve different pages.
set -eu
mkdir -p "$HOME/notes" "$HOME/shop/web" "$HOME/shop/cart"
cd "$HOME/shop"
cat >devport.yaml <<'END'
services:
  cart:
    exec: python3 -m http.server --bind 127.0.0.1 $PORT
    cwd: cart
  web:
    exec: python3 -m http.server --bind 127.0.0.1 $PORT
    cwd: web
    depends-on: [cart]
END
echo ok >cart/index.html
echo 'the shop of main' >web/index.html
as_author() { git -c user.name=shop -c user.email=shop@example.com "$@"; }
git init --quiet --initial-branch main
git add .
as_author commit --quiet --message 'Serve the shop'
git switch --quiet --create feat
echo 'the shop of feat' >web/index.html
as_author commit --quiet --all --message 'Serve the feature'
git switch --quiet main
