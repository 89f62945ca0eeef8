# The project with everything that it needs, for compose.yaml and for Prefect's Docker and Kubernetes workers.
#
#   docker build --tag image-conductor .                                  # CPU
#   docker build --tag image-conductor --build-arg TORCH_INDEX= .         # CUDA: PyPI's torch
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make install VENV=/opt/image-conductor TORCH_INDEX="$TORCH_INDEX" && rm -rf /root/.cache/pip
RUN useradd --create-home conductor
USER conductor
ENV PATH=/opt/image-conductor/bin:$PATH HOME=/home/conductor
EXPOSE 5001
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5001/health', timeout=5)"]
CMD ["python", "-m", "stages.serve", "--host", "0.0.0.0", "--port", "5001"]
