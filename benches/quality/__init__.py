"""Rate and distortion of kuat beside JPEG, WebP and BC1, as a page with pictures, QUALITY.md."""
