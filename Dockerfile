# What a job needs: the locked environment, git and ssh. Jobs clone the project themselves; what lies here is its code.
#
#     docker build -t lightvision .
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install --no-install-recommends --yes git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home lightvision

WORKDIR /opt/lightvision
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir uv
ENV PATH=/opt/lightvision/.venv/bin:$PATH VIRTUAL_ENV=/opt/lightvision/.venv

COPY requirements.lock ./
RUN uv pip install --no-cache --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY deploy deploy
COPY flows flows
COPY lightvision lightvision
COPY stages stages
RUN uv pip install --no-cache --no-deps --no-build-isolation -e .

ENV LIGHTVISION_HOST_FOLDER=/var/lib/lightvision
RUN install --directory --owner=lightvision --group=lightvision /var/lib/lightvision
USER lightvision
