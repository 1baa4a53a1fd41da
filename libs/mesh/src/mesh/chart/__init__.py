"""What the Helm chart (`deploy/helm/backend`) is made of: its values, and what it knows of the services.

The templates are written by hand and name no service. `render.files` has everything else: they range over what it says of the
rows of the table.
"""
